"""METEOR 1.5 and the tokens of MS-COCO captions, computed from the data of two Java programs."""
