"""From a manifest to a store: one lesion, finished parts, workers, the store put together; and the check before it."""
