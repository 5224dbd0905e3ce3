"""Networks and measurements that score or describe clips for evaluation."""
