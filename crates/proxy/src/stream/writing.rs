//! Gathers what is written, so that a small response leaves in one piece.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::Buf;

use super::{ClientStream, GATHER_BYTES_MAX};

/// The first room for writes: a header and a small body.
const WRITE_BYTES: usize = 4 << 10;

impl ClientStream {
    pub(super) fn poll_put(&mut self, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self;
        if this.out.len() + data.len() <= GATHER_BYTES_MAX {
            if this.out.capacity() == 0 {
                this.out.reserve(WRITE_BYTES);
            }
            let gathered = this.out.len();
            this.out.extend_from_slice(data);
            this.kept_date.put_into(this.out.get_mut(gathered..).unwrap_or_default());
            if *this.is_live.get_mut() {
                let _what_is_left_goes_with_the_next = this.poll_send(context)?;
            }
            return Poll::Ready(Ok(data.len()));
        }
        let gathered = this.out.len();
        let written = ready!(this.poll_out(context, data))?;
        this.out.advance(written.min(gathered));
        match written.checked_sub(gathered) {
            Some(of_data) if of_data > 0 => Poll::Ready(Ok(of_data)),
            Some(_) | None if written == 0 => Poll::Ready(Ok(0)),
            Some(_) | None => {
                // Only what was gathered went out: the data is next, at once.
                context.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }
}
