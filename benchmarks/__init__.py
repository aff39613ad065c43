"""Scripts of the peers that `lorakit bench` measures against: PEFT, loralib and Trainer.

The package is part of a checkout and not of the wheel; `lorakit.bench` imports it when it is asked
for a peer.
"""
