"""python -m rlx is rlx: what lies in the working directory hides no installed module (see rlx.config.own_code)."""

import sys

if not sys.flags.safe_path:
    del sys.path[0]  # the working directory, which -m puts in front

from rlx.cli.main import main

if __name__ == "__main__":
    main()
