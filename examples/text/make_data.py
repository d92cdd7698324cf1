"""Write short reviews and whether they are good as a CSV."""

import random

random.seed(0)
WORDS = {
    "good": ["lovely", "moving", "clever", "warm", "bright", "gripping"],
    "bad": ["dull", "cold", "clumsy", "slow", "loud", "empty"],
}
THINGS = ["story", "cast", "music", "ending", "dialogue", "scenery"]
with open("reviews.csv", "w", encoding="utf-8") as file:
    print("review,rating", file=file)
    for i in range(400):
        rating = ["good", "bad"][i % 2]
        first, second = random.sample(WORDS[rating], 2)
        thing, other = random.sample(THINGS, 2)
        print(f"the {thing} is {first} and the {other} rather {second},{rating}", file=file)
