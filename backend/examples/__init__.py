"""Examples of tasks, as the developers' pages show them."""
