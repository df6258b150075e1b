"""The elements on the wire: one frozen dataclass each, `parse` and `render` side by side."""
