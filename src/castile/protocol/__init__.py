"""The rules: ``step(state, event, now) -> (state, actions)``, pure, one machine a file."""
