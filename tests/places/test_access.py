import pytest

from nsd_zarr.errors import ConfigError
from nsd_zarr.places.objects.access import make_access, read_connection_string

KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq=="  # Ends in = as real ones do.


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"AccountName=lab;AccountKey={KEY}", {"account_name": "lab", "account_key": KEY}),
        (
            f"DefaultEndpointsProtocol=https;AccountName=lab;AccountKey={KEY};EndpointSuffix=core.windows.net",
            {"account_name": "lab", "account_key": KEY, "endpoint": "https://lab.blob.core.windows.net"},
        ),
        (
            " BlobEndpoint=http://127.0.0.1:1/lab ; SharedAccessSignature=sv=1&sig=a%3D;",
            {"endpoint": "http://127.0.0.1:1/lab", "sas_token": "sv=1&sig=a%3D"},
        ),
    ],
)
def test_connection_string_of_azure(text, found):
    # learn.microsoft.com/azure/storage/common/storage-configure-connection-string
    assert read_connection_string(text) == found


@pytest.mark.parametrize("text", ["", ";;", "lab", f"AccountKey={KEY}", "AccountName="])
def test_connection_string_without_an_account_is_refused_and_not_shown(text):
    with pytest.raises(ConfigError, match="names no account") as caught:
        read_connection_string(text)
    assert KEY not in str(caught.value)


def test_no_option_is_shown():
    access = make_access("az://b/s.zarr", {"connection_string": f"AccountName=lab;AccountKey={KEY}"})
    assert KEY not in f"{access!r} {access}"
    assert access.find("connection_string").endswith(KEY)
