"""The command fastgpt-c: one file a subcommand, each with add_parser(subparsers) and run(args) -> exit status.

Nothing of the engine is imported before a subcommand runs, so that --help answers at once.
"""
