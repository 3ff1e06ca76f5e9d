"""The parts of the fault campaign: what is damaged, how, who reads it, and what is counted."""
