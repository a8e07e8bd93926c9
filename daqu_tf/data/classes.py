"""The classes of a data set: what they are called, and how much each counts in training."""

import numpy as np

from daqu_tf.errors import DaquError

_FASHION_MNIST = "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot"
_CIFAR10 = "airplane,automobile,bird,cat,deer,dog,frog,horse,ship,truck"
_CIFAR100 = (
    "apple,aquarium fish,baby,bear,beaver,bed,bee,beetle,bicycle,bottle,bowl,boy,bridge,bus,butterfly,camel,can,castle,"
    "caterpillar,cattle,chair,chimpanzee,clock,cloud,cockroach,couch,crab,crocodile,cup,dinosaur,dolphin,elephant,flatfish,"
    "forest,fox,girl,hamster,house,kangaroo,keyboard,lamp,lawn mower,leopard,lion,lizard,lobster,man,maple tree,motorcycle,"
    "mountain,mouse,mushroom,oak tree,orange,orchid,otter,palm tree,pear,pickup truck,pine tree,plain,plate,poppy,porcupine,"
    "possum,rabbit,raccoon,ray,road,rocket,rose,sea,seal,shark,shrew,skunk,skyscraper,snail,snake,spider,squirrel,streetcar,"
    "sunflower,sweet pepper,table,tank,telephone,television,tiger,tractor,train,trout,tulip,turtle,wardrobe,whale,willow tree,"
    "wolf,woman,worm"
)
_UNEVEN = 3  # From so many times the images of the smallest class on, the difference is said.
_KNOWN = {"fashion_mnist": _FASHION_MNIST, "cifar10": _CIFAR10, "cifar100": _CIFAR100}


def names_of_classes(name: str, num_classes: int, given: np.ndarray | None = None) -> tuple[str, ...]:
    """The names of the classes of a data set, in the order of their numbers.

    Args:
        name: The name of the data set or of its file; the class names of Fashion-MNIST and CIFAR are known.
        num_classes: The number of classes.
        given: The names (num_classes,) from the data file, as an array of texts; None where it has none.

    Raises:
        DaquError: `given` does not hold a different name of one line for each class.
    """
    if given is not None:
        return _checked(name, num_classes, given)
    known = tuple(_KNOWN.get(name, "").split(","))
    return known if len(known) == num_classes else tuple(map(str, range(num_classes)))


def _checked(name: str, num_classes: int, given: np.ndarray) -> tuple[str, ...]:
    names = tuple(text.strip() for text in given.astype(str).ravel())
    if given.dtype.kind != "U" or given.shape != (num_classes,) or len(set(names)) < num_classes:
        raise DaquError(
            f"The class names of {name} must be {num_classes} different texts, but received {given.dtype} of shape "
            f"{given.shape}: save them in the order of the class numbers as numpy.array([...], dtype=str)."
        )
    for text in names:
        if len(text.splitlines()) != 1:
            raise DaquError(f"The class names of {name} must be one line each, but received {text!r}: rename that class.")
    return names


def weights_of(name: str, labels: np.ndarray, how: str, class_names: tuple[str, ...]) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """How much an image of each class counts in training, and a note where the classes are of very different sizes.

    Args:
        name: The name of the data set.
        labels: The labels (N,) of the training images.
        how: `balanced`, by which all classes count alike, and the mean image 1; or `none`, by which nothing is weighed.
        class_names: The names of the classes.
    """
    counts = np.bincount(labels, minlength=len(class_names))
    weights = tuple((len(labels) / (len(counts) * counts)).tolist()) if how == "balanced" else ()
    if counts.max() < _UNEVEN * counts.min():
        return weights, ()
    most, least = int(counts.argmax()), int(counts.argmin())
    remedy = "" if weights else " To let all classes count alike in training, give --class_weights=balanced."
    return weights, (
        f"The classes of {name} are of different sizes: {counts[most]} training images of {class_names[most]}, {counts[least]} of "
        f"{class_names[least]}.{remedy}",
    )
