"""``torchrun`` that ends with the line of the process that failed, not with a traceback of its own.

    python -P hmtl_plugin/fairseq_hooks/torchrun.py --standalone --nproc_per_node 2 --no-python fairseq-train ...

A file to run, which imports nothing of the package: -P keeps its folder off the path of modules.
"""

import logging
import signal
import sys

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import parse_args, run


def main(arguments: list[str]) -> int:
    """Run it; the exit status of the process that failed first, as a shell would give it, or 0."""
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # of each process that it ends
    try:
        run(parse_args(arguments))
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode > 0:  # it has said why
            return int(failure.exitcode)
        number = -failure.exitcode
        name = next((known.name for known in signal.Signals if known == number), f"signal {number}")
        why = " (out of memory?)" if number == signal.SIGKILL else ""
        print(f"error: the process of rank {rank} was ended by {name}{why}", file=sys.stderr)
        return 128 + number
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
