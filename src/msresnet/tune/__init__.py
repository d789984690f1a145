"""The search for settings that train best, by validation score; resumable, with bad trials cut short."""
