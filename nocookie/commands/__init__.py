"""The subcommands of `nocookie`, a module each: `nocookie.cli` imports the one that is called."""

__all__: list[str] = []
