"""Write scikit-learn's diabetes table as a CSV."""

import csv

from sklearn.datasets import load_diabetes

table = load_diabetes(scaled=False)
with open("diabetes.csv", "w", newline="", encoding="utf-8") as file:
    rows = csv.writer(file)
    rows.writerow([*table.feature_names, "progression"])
    rows.writerows([*x, y] for x, y in zip(table.data, table.target, strict=True))
