"""Train MobileNets that run in four bits or less (PROFIT, arXiv:2008.04693)."""
