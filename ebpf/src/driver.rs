//! Which driver a network interface has.

use std::ffi::CStr;
use std::io;
use std::mem;
use std::os::fd::AsRawFd;

/// What `ETHTOOL_GDRVINFO` fills in (`struct ethtool_drvinfo` of `linux/ethtool.h`).
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    version: [u8; 32],
    firmware_version: [u8; 32],
    bus_info: [u8; 32],
    rom_version: [u8; 32],
    reserved: [u8; 12],
    counts: [u32; 5],
}

const _: () = assert!(size_of::<DriverInfo>() == 196);

const ETHTOOL_GDRVINFO: u32 = 3;

/// The driver's name, e.g. `veth`, in this thread's network namespace. `/sys` would show that of whoever mounted it.
pub(crate) fn driver(interface: &str) -> io::Result<String> {
    // Any socket names interfaces to the kernel; nothing is sent.
    let socket =
        std::net::UdpSocket::bind("127.0.0.1:0").or_else(|_| std::net::UdpSocket::bind("[::1]:0"))?;
    // SAFETY: plain integers and arrays of them, for which zeros are a value.
    let (mut info, mut request): (DriverInfo, libc::ifreq) = unsafe { (mem::zeroed(), mem::zeroed()) };
    info.command = ETHTOOL_GDRVINFO;
    // A zero must be left behind the name.
    if interface.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = (&raw mut info).cast();
    // SAFETY: the kernel reads the request and writes no more than a `DriverInfo` where it points, which outlives the call.
    let said = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) };
    if said < 0 {
        return Err(io::Error::last_os_error());
    }
    let name = CStr::from_bytes_until_nul(&info.driver).map_err(io::Error::other)?;
    Ok(name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_interface_has_no_driver() {
        for name in ["no-such-0", "", "a-name-of-an-interface-that-is-too-long"] {
            assert!(driver(name).is_err(), "{name}");
        }
    }
}
