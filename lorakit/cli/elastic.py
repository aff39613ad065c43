"""The launching process of several: accelerate's launcher, which reports the first failure as data.

`lorakit.cli.launch` starts it with the arguments of `accelerate launch`.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from lorakit.children import STATUS_FILE, Ending

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure


def main() -> None:
    """Run the processes. The exit code is that of the first that failed, or 128 + its signal."""
    debug = os.environ.get("LORAKIT_DEBUG") == "1"
    if not debug:
        # torchrun logs every process that it stops; the ending of the first is shown by the parent
        logging.disable(logging.CRITICAL)
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    arguments = launch_command_parser().parse_args()
    try:
        launch_command(arguments)
    except ChildFailedError as error:
        if debug:
            traceback.print_exc()
        rank, failure = error.get_first_failure()
        ending = _ending(failure, f"process {rank} of {arguments.num_processes}")
        if ending is not None:
            ending.write(Path(os.environ[STATUS_FILE]))
        sys.exit(128 - failure.exitcode if failure.exitcode < 0 else failure.exitcode)
    except SignalException as received:
        sys.exit(128 + received.sigval)


def _ending(failure: ProcessFailure, process: str) -> Ending | None:
    """None where the process ended by itself without an error, as after a check that failed."""
    if failure.exitcode < 0:
        killed = Ending.by_signal(-failure.exitcode, process)
        message = f"{killed.message}; the others were ended"
        return Ending(killed.code, message, killed.exit_code)
    message = failure.error_file_data["message"]
    # torchrun puts a text here where the process wrote no error file
    if isinstance(message, str):
        return None
    return Ending.from_json(message["extraInfo"])


if __name__ == "__main__":
    main()
