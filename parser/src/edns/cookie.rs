//! COOKIE, option 10: a weak proof that the peer can hear what is sent to its address (RFC 7873).
//!
//! A client sends its own eight bytes, and with them what the server gave it last time. Making and
//! checking the server's part is the server's business (RFC 9018); here it is 8 to 32 bytes without
//! meaning.

use super::OptWriter;

/// Number of the option.
pub const CODE: u16 = 10;

/// Bytes of the client's part (RFC 7873 §4.1).
pub const CLIENT_LEN: usize = 8;

/// The fewest bytes of the server's part (RFC 7873 §4.2).
pub const SERVER_LEN_MIN: usize = 8;

/// The most bytes of the server's part (RFC 7873 §4.2).
pub const SERVER_LEN_MAX: usize = 32;

/// A cookie: the client's part, and the server's part if there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cookie {
    /// What the client chose for this server.
    pub client: [u8; CLIENT_LEN],
    /// Zero from `server_len` on, so that equality may look at all of it.
    server: [u8; SERVER_LEN_MAX],
    server_len: u8,
}

impl Cookie {
    /// A cookie with both parts; `None` if `server` is neither empty nor 8 to 32 bytes long.
    #[must_use]
    pub fn new(client: [u8; CLIENT_LEN], server: &[u8]) -> Option<Self> {
        let len = match server.len() {
            len @ (0 | SERVER_LEN_MIN..=SERVER_LEN_MAX) => u8::try_from(len).ok()?,
            _ => return None,
        };
        let mut cookie = Self { client, server: [0; SERVER_LEN_MAX], server_len: len };
        cookie.server.get_mut(..server.len())?.copy_from_slice(server);
        Some(cookie)
    }

    /// Reads the data of the option: 8 bytes, or 16 to 40; any other length is malformed (RFC 7873
    /// §5.2.2).
    #[inline]
    #[must_use]
    pub fn read(data: &[u8]) -> Option<Self> {
        let (client, server) = data.split_first_chunk::<CLIENT_LEN>()?;
        // The lengths in use, none and the 16 bytes of RFC 9018, are moved in registers.
        match <&[u8; 16]>::try_from(server) {
            Ok(whole) => {
                let mut bytes = [0; SERVER_LEN_MAX];
                *bytes.first_chunk_mut()? = *whole;
                Some(Self { client: *client, server: bytes, server_len: 16 })
            }
            Err(_) if server.is_empty() => {
                Some(Self { client: *client, server: [0; SERVER_LEN_MAX], server_len: 0 })
            }
            Err(_) => Self::new(*client, server),
        }
    }

    /// The server's part; empty if the client has none yet.
    #[inline]
    #[must_use]
    pub fn server(&self) -> &[u8] {
        self.server.get(..usize::from(self.server_len)).unwrap_or(&[])
    }

    /// Writes the option; false and nothing written when there is no room.
    pub fn write(&self, opt: &mut OptWriter<'_>) -> bool {
        opt.option_of(CODE, [&self.client, self.server()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_lengths_of_the_rfc_are_read() {
        let data: Vec<u8> = (1..=48).collect();
        for len in 0..=48 {
            let cookie = Cookie::read(&data[..len]);
            assert_eq!(cookie.is_some(), len == 8 || (16..=40).contains(&len), "{len}");
            if let Some(cookie) = cookie {
                assert_eq!([&cookie.client, cookie.server()].concat(), &data[..len]);
                assert_eq!(Cookie::new(cookie.client, cookie.server()), Some(cookie));
            }
        }
    }
}
