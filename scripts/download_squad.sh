#!/usr/bin/env bash
# Fetches SQuAD as it was published: bash scripts/download_squad.sh DIR [1.1] [2.0] (--help)
#
#   PYTHON   the Python that does it, 3.9 or newer (default: python3); the project need not be installed
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-python3}
command -v "$python" >/dev/null 2>&1 || { echo "error: no $python here: install Python 3, or name one: PYTHON=/path/to/python3" >&2; exit 1; }
exec "$python" "$here/download.py" squad "$@"
