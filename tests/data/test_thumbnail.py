import io

from PIL import Image

from subfour.data.thumbnail import thumbnail


def test_a_large_image_shrinks_and_a_small_one_stays_as_it_is():
    assert Image.open(io.BytesIO(thumbnail(Image.new("RGB", (400, 200))))).size == (96, 48)
    small = Image.new("RGB", (8, 8), "red")
    assert list(Image.open(io.BytesIO(thumbnail(small))).getdata()) == list(small.getdata())
