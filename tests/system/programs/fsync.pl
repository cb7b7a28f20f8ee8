#!/usr/bin/perl
# SPDX-License-Identifier: GPL-2.0-or-later
# Writes records that are flushed to the disk one by one, and says each record's number once it must be safe.
#
# usage: fsync.pl device FILE WORKER LAST    into the worker's slots on a block device, from record LAST + 1 on, without end
#        fsync.pl files FOLDER WORKER LAST   appended to files in a folder, from record LAST + 1 on, without end
#        fsync.pl verify FOLDER WORKER LAST  checks that records 1 to LAST are in the folder's files
#
# The slots of a device: 4096 of 64 KiB for each worker; record N is in slot N mod 4096 and begins it. campaign_kill.py
# reads them on the host. A record's size and content follow from worker and number.
use strict;
use warnings;
use Fcntl;
use IO::Handle;

use constant { SLOTS => 4096, SLOT => 65536, RECORDS_IN_FILE => 50 };

my ($what, $place, $worker, $last) = @ARGV;

# 1 to 128 sectors, each of them naming its record and itself.
sub record {
    my ($number) = @_;
    return join '', map { sprintf('%-31s|', "$worker $number $_") x 16 } 0 .. $number * 7919 % 128;
}

sub flushed {
    my ($file, $number) = @_;
    $file->sync or die "fsync: $!";
    syswrite STDOUT, "safe $worker $number\n";
}

sub write_whole {
    my ($file, $data) = @_;
    my $written = syswrite $file, $data;
    die "write: $!" unless defined $written && $written == length $data;
}

sub device {
    sysopen my $file, $place, O_WRONLY or die "$place: $!";
    for (my $number = $last + 1; ; $number++) {
        sysseek $file, ($worker * SLOTS + $number % SLOTS) * SLOT, 0 or die "seek: $!";
        write_whole($file, record($number));
        flushed($file, $number);
    }
}

# What follows the last safe record in its file may be there in part: it is cut off first.
sub files {
    my $file;
    my $number = $last + 1;
    my $first = $number - ($number - 1) % RECORDS_IN_FILE;
    my $size = 0;
    $size += length record($_) for $first .. $last;
    for (; ; $number++) {
        if (!$file || ($number - 1) % RECORDS_IN_FILE == 0) {
            my $name = sprintf '%s/%d.%d', $place, $worker, ($number - 1) / RECORDS_IN_FILE;
            sysopen $file, $name, O_WRONLY | O_CREAT or die "$name: $!";
            truncate $file, $size or die "truncate: $!";
            sysseek $file, $size, 0 or die "seek: $!";
            $size = 0;
            open my $folder, '<', $place or die "$place: $!";
            $folder->sync or die "fsync of the folder: $!";
        }
        write_whole($file, record($number));
        flushed($file, $number);
    }
}

sub verify {
    my ($file, $lost) = (undef, 0);
    for my $number (1 .. $last) {
        if (($number - 1) % RECORDS_IN_FILE == 0) {
            my $name = sprintf '%s/%d.%d', $place, $worker, ($number - 1) / RECORDS_IN_FILE;
            sysopen $file, $name, O_RDONLY or die "record $number lost: $name: $!";
        }
        my $want = record($number);
        my $got = '';
        sysread $file, $got, length $want;
        next if $got eq $want;
        $lost++;
        print "record $number of worker $worker is lost\n";
    }
    exit($lost ? 1 : 0);
}

{ device => \&device, files => \&files, verify => \&verify }->{$what}->();
