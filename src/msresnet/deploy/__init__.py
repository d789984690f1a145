"""From a trained model to what runs elsewhere: exported, made smaller, measured."""
