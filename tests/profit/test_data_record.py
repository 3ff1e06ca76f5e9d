from subfour.data.preprocess import Preprocessing
from subfour.profit.data_record import DataRecord


def test_the_record_of_classes_and_preprocessing_survives_json():
    """Types included."""
    preprocessing = Preprocessing(
        image_size=224, resize_size=256, interpolation="bicubic", mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)
    )
    record = DataRecord(classes=("cat", "dog"), preprocessing=preprocessing)
    assert DataRecord.from_json(record.to_json()) == record
