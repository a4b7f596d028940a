//! What an operator reads.

use super::*;
use crate::backend::xdp::interface::AttachMode;

fn at(step: Step, errno: i32) -> XdpError {
    XdpError::at(step, "eth0", 3)(io::Error::from_raw_os_error(errno))
}

/// What the kernel says at a step, and what an operator is to read.
#[test]
fn each_refusal_names_the_place_and_what_to_do() {
    let [native, generic] = [false, true].map(|generic| Step::Attach { generic, mtu: 9000 });
    let cases: &[(Step, i32, &[&str])] = &[
        (
            Step::ListInterfaces,
            libc::EAFNOSUPPORT,
            &["cannot list the interfaces", "RestrictAddressFamilies=", "AF_NETLINK and AF_XDP"],
        ),
        (
            Step::OpenSocket,
            libc::EAFNOSUPPORT,
            &["CONFIG_XDP_SOCKETS", "RestrictAddressFamilies=", "AF_NETLINK and AF_XDP"],
        ),
        (
            Step::LoadFilter,
            libc::EPERM,
            &[
                "--cap-add IPC_LOCK",
                "CapabilityBoundingSet=",
                "CAP_NET_RAW CAP_IPC_LOCK",
                "`RestrictAddressFamilies=AF_XDP AF_NETLINK`",
                "`SystemCallFilter=bpf capset`",
                "setcap cap_net_admin",
            ],
        ),
        (Step::OpenSocket, libc::EMFILE, &["open an AF_XDP socket", "queue 3 of eth0"]),
        (
            Step::RegisterMemory { bytes: 8 << 20 },
            libc::ENOBUFS,
            &[
                "8388608 bytes",
                "queue 3 of eth0",
                "ulimit -l",
                "LimitMEMLOCK",
                "CAP_IPC_LOCK",
                "`--cap-add IPC_LOCK`",
                "AmbientCapabilities= and CapabilityBoundingSet=",
            ],
        ),
        (
            Step::Bind { zero_copy: false },
            libc::EBUSY,
            &["queue 3 of eth0", "another AF_XDP socket", "SWIFTLET_XDP_QUEUES"],
        ),
        (
            Step::Bind { zero_copy: true },
            libc::EOPNOTSUPP,
            &["queue 3 of eth0", "zero-copy", "SWIFTLET_XDP_MODE=copy"],
        ),
        (Step::Bind { zero_copy: false }, libc::ENETDOWN, &["eth0 is down", "ip link set dev"]),
        (native, libc::EOPNOTSUPP, &["SWIFTLET_XDP_MODE=generic"]),
        (native, libc::ERANGE, &["eth0", "MTU of 9000 bytes", "mtu 1500"]),
        (native, libc::EINVAL, &["MTU of 9000", "or for too few free queues", "rx-gro-hw off"]),
        (native, libc::ENOMEM, &["eth0", "ethtool -L eth0 combined N", "at most half", "dmesg"]),
        (native, libc::ENOSPC, &["No space left", "too few free queues"]),
        (native, libc::EBUSY, &["eth0", "too few free queues"]),
        (native, libc::EIO, &["attach the filter (native)", "eth0"]),
        (generic, libc::ENOMEM, &["attach the filter (generic)", "eth0"]),
    ];
    for &(step, errno, expected) in cases {
        let error = at(step, errno);
        let text = error.to_string();
        for part in expected {
            assert!(text.contains(part), "{text} lacks {part}");
        }
        assert!(!error.is_conflict() && !text.contains("  "), "{text}");
    }
}

/// What is the driver's alone is no reason to give up; what would meet the generic mode as well is.
#[test]
fn the_generic_mode_is_left_where_the_driver_refuses() {
    let native = Step::Attach { generic: false, mtu: 9000 };
    for (errno, is_for_native) in [
        (libc::EOPNOTSUPP, true),
        (libc::ERANGE, true),
        (libc::EINVAL, true),
        (libc::ENOMEM, true),
        (libc::ENOSPC, true),
        (libc::EBUSY, true),
        (libc::EPERM, false),
        (libc::ENETDOWN, false),
        (libc::ENODEV, false),
    ] {
        let error = at(native, errno);
        assert_eq!(error.is_for_native(), is_for_native, "{error}");
    }
    assert!(!at(Step::Attach { generic: true, mtu: 9000 }, libc::ENOMEM).is_for_native());
    let foreign = XdpError::AttachedAbove { interface: "eth0".into() };
    assert!(!foreign.is_for_native());
}

#[test]
fn a_missing_capability_is_named() {
    for step in [Step::CreateMap, Step::OpenSocket, Step::Tune] {
        let text = at(step, libc::EPERM).to_string();
        assert!(text.contains("--cap-add NET_ADMIN --cap-add BPF --cap-add NET_RAW"), "{text}");
    }
    let lacks = |missing: &[&'static str]| {
        let (step, place) = (Step::CreateMap, Place { interface: String::new(), queue: None });
        XdpError::NotPermitted { step, place, missing: missing.to_vec() }.to_string()
    };
    let both = "no permission to create a BPF map: this process lacks CAP_NET_ADMIN and CAP_BPF; ";
    assert!(lacks(&["CAP_NET_ADMIN", "CAP_BPF"]).starts_with(both));
    assert!(lacks(&[]).contains("seccomp"));
}

#[test]
fn a_program_that_is_there_is_a_conflict_with_a_way_out() {
    let program = |mode, name: Option<&str>| {
        let program = Attached { id: 42, mode, name: name.map(Into::into) };
        XdpError::Attached { interface: "eth0".into(), program }
    };
    let native = program(AttachMode::Native, Some("lb"));
    assert!(native.is_conflict());
    assert!(native.to_string().contains("on eth0 (lb, id 42, native)"), "{native}");
    assert!(native.to_string().contains("`ip link set dev eth0 xdpdrv off`"), "{native}");
    let generic = program(AttachMode::Generic, None).to_string();
    assert!(generic.contains("(id 42, generic)") && generic.contains("eth0 xdpgeneric off`"));
}
