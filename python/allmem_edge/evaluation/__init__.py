"""What `allmem-edge eval` measures: tasks, official metrics and reports, for any model directory."""
