"""What runs a network: torch, ONNX Runtime, OpenVINO; all give the same answers."""
