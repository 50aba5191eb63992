"""Where nocookie meets a framework, a module each. Nothing imports an adapter but its users."""

__all__: list[str] = []
