"""The deterministic simulator: real clients and services over a network, clock and disk of its own."""
