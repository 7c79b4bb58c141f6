"""What emotiond uses of libcamera itself."""


class CameraManager:
    @staticmethod
    def singleton() -> "CameraManager":
        return CameraManager()
