"""Starting a training from the numbers of another adapter."""

from __future__ import annotations

from lorakit.adapters.attach import state_for
from lorakit.adapters.files import AdapterFile
from lorakit.adapters.same_base import refuse_other_base
from lorakit.methods import Attachment


def start_from(file: AdapterFile, attachment: Attachment) -> list[str]:
    """Load another adapter's numbers; returns the parameters that stay newly initialised.

    As in the reference code, the last projection of the head may differ (another number of labels)
    and keeps its newly initialised values. The other layers of the head are loaded.

    AdapterError: the adapter was trained on another base, or does not fit the attachment.
    """
    refuse_other_base(file, attachment.model)
    state = state_for(file, attachment)
    own = attachment.state()
    differ = [
        name
        for name in own
        if name in attachment.newly_initialised
        and (name not in state or state[name].shape != own[name].shape)
    ]
    state |= {name: own[name] for name in differ}
    attachment.load_state(state)
    return differ
