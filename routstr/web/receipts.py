"""`/v1/receipts/{request_id}`: the signed receipt of a request, for whoever paid it."""

from fastapi import APIRouter, Request, Response

from routstr.flows.receipts import read_receipt
from routstr.web.deps import Ctx

router = APIRouter(tags=["receipts"])


@router.get("/v1/receipts/{request_id}")
async def read(request_id: str, request: Request, ctx: Ctx) -> Response:
    """The receipt, the same bytes each time and in the answer it is of."""
    receipt = await read_receipt(ctx, request.headers, request_id)
    return Response(receipt.document, media_type="application/json")
