"""Publishing: model cards, the upload to the hub, and the file formats of other programs."""
