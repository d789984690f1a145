"""What a task's answers for the tiles of a large image become."""
