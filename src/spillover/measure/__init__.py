"""measure: answers and verdicts become rates with intervals, and groups are compared over runs."""
