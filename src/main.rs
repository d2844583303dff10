fn main() {
    adamant::rootfs::entry();
}
