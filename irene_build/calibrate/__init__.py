"""What `calibrate` puts together: request, targets, workload, run, transfer, summary."""
