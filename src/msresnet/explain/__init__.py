"""Why a model answers as it does: where on the image, and at which scale. Draws nothing."""
