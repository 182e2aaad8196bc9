"""From a published base model and a memory adapter to a model directory, without PyTorch."""
