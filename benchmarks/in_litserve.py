"""The contestant of `serving.py` that runs in LitServe; it starts processes of its own, which read this file again."""

# No `from __future__ import annotations`: LitServe looks at the type of decode_request's argument.
import argparse
from typing import Any

import litserve
import numpy as np
from fastapi import Request

from msresnet.data.decode import decode_bytes
from msresnet.infer.backends.opened import open_predictor
from msresnet.infer.config import Running


class Api(litserve.LitAPI):  # type: ignore[misc, unused-ignore]
    """An upload in, a row of results out.

    Args:
        model: the path.
        threads: of the network.
        batch: images at a time.
        send: photographs, or pixels that are ready.
    """

    def __init__(self, model: str, threads: int, batch: int, send: str) -> None:
        super().__init__(max_batch_size=batch, batch_timeout=0.002 if batch > 1 else 0.0)
        self.model, self.how, self.send = model, Running(threads=threads, batch_size=batch), send

    def setup(self, device: str) -> None:
        """Load the model, in the process that computes."""
        self.predictor = open_predictor(self.model, self.how)

    def decode_request(self, request: Request) -> bytes:
        """The upload's bytes."""
        data: bytes = request["image"].file.read()  # in truth it is a form
        return data

    def predict(self, files: Any) -> Any:
        """Rows of results; LitServe gives a list where it may batch, else one."""
        several = files if isinstance(files, list) else [files]
        preprocess, ids = self.predictor.trained.preprocess, ["image"] * len(several)
        if self.send == "pixels":
            shape = (preprocess.channels, *preprocess.size)
            ready = np.stack([np.frombuffer(data, np.uint8).reshape(shape) for data in several])
            rows = self.predictor.predict_ready(ready, ids).to_dict()
        else:
            images = [decode_bytes(data, "image", preprocess.at_least) for data in several]
            rows = self.predictor.predict(images, ids).to_dict()
        return rows if isinstance(files, list) else rows[0]

    def encode_response(self, output: Any) -> Any:
        """As it is."""
        return output


def main() -> None:
    """Serve until stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--send", required=True)
    parser.add_argument("--port", type=int, required=True)
    args = parser.parse_args()
    api = Api(args.model, args.threads, args.batch, args.send)
    server = litserve.LitServer(api, accelerator="cpu", devices=1, workers_per_device=args.workers)
    server.run(host="127.0.0.1", port=args.port, log_level="critical", generate_client_file=False)


if __name__ == "__main__":
    main()
