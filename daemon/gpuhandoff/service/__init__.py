"""The bus: what is offered on it and who called."""
