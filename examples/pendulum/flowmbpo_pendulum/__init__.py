"""A task and a world model for flowmbpo, in a package of their own."""
