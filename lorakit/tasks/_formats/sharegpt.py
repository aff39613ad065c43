"""ShareGPT: `{"conversations": [{"from": "human", "value": "Hi"}, ...]}`."""

from __future__ import annotations

from typing import Any

from lorakit.tasks._formats.messages import Messages


class ShareGpt(Messages):
    """A list of messages with from and value."""

    name = "sharegpt"
    rank = 1
    looks_like = '{"conversations": [{"from": "human", "value": "Hi"}, ...]}'
    keys = ("from", "value")

    def plain(self, message: dict[str, Any]) -> dict[str, Any]:
        rest = {key: value for key, value in message.items() if key not in self.keys}
        return {**rest, "role": message.get("from"), "content": message.get("value")}


PLUGIN = ShareGpt()
