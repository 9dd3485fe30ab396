from rlx.cli.main import main

main()
