"""Write scikit-learn's wine table as a CSV."""

import csv

from sklearn.datasets import load_wine

table = load_wine()
with open("wine.csv", "w", newline="", encoding="utf-8") as file:
    rows = csv.writer(file)
    rows.writerow([*table.feature_names, "cultivar"])
    rows.writerows([*x, table.target_names[y]] for x, y in zip(table.data, table.target, strict=True))
