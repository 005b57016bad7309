internal import CLinux
internal import Glibc

/// A network namespace with nothing in it but loopback: a second web server can listen there on the port that the first one
/// holds.
public enum PrivateNetwork {
    /// For the calling thread, and every thread and program that it starts from now on. Programs and threads that run already
    /// keep the network they have. Needs CAP_SYS_ADMIN in the present user namespace.
    public static func enter() throws(HostError) {
        if amorce_enter_private_network() != 0 { throw HostError("unshare", "network", errno: errno) }
    }
}
