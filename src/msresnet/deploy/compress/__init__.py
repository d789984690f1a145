"""A trained model made smaller and faster, and what that costs."""
