"""From files to batches: sources, preprocessing, splits, augmentation."""
