"""`python -m dpo.signal_test`: find in which modality's error constructed losers differ by sync."""
