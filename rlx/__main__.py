"""python -m rlx is rlx: what lies in the working directory hides no installed module (see rlx.config.own_code)."""

import sys

if __name__ == "__main__":  # and not where a worker process imports it
    if not sys.flags.safe_path:
        del sys.path[0]  # the working directory, which -m puts in front
    from rlx.cli.main import main

    main()
