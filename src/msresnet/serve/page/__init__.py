"""The page of the server: a picture in, the answer and its reasons out."""
